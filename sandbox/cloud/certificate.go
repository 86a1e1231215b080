package cloud

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"time"

	"github.com/azure-patrol/patrol/sandbox/keyvault"
)

const (
	// certificateName is the app's certificate in the vault, ENTRA_CERTIFICATE.
	certificateName = "sign-in-certificate"
	certificateLife = 2 * 365 * 24 * time.Hour
)

// makeCertificate makes the app's certificate, and the text with its key under which
// Key Vault keeps it as a secret.
func makeCertificate() (cert *x509.Certificate, secret string, err error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, "", fmt.Errorf("cloud: making a key: %w", err)
	}
	now := time.Now()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "patrol"},
		NotBefore: now.Add(-time.Minute), NotAfter: now.Add(certificateLife), KeyUsage: x509.KeyUsageDigitalSignature}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, "", fmt.Errorf("cloud: making a certificate: %w", err)
	}
	cert, err = x509.ParseCertificate(raw)
	if err != nil {
		return nil, "", fmt.Errorf("cloud: making a certificate: %w", err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, "", fmt.Errorf("cloud: making a certificate: %w", err)
	}
	return cert, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})) +
		string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw})), nil
}

// storeCertificate puts the app's certificate into the vault, if it has one.
func (c *Cloud) storeCertificate() error {
	if c.certificate == "" {
		return nil
	}
	c.tokens.add(c.certificate)
	_, err := c.Vault.Put(keyvault.Version{Name: certificateName, Value: c.certificate,
		ContentType: "application/x-pem-file"})
	return err
}
