package blob

import (
	"encoding/base64"
	"encoding/xml"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// page is a page of a list on the wire.
type page struct {
	XMLName         xml.Name `xml:"EnumerationResults"`
	ServiceEndpoint string   `xml:",attr"`
	ContainerName   string   `xml:",attr"`
	Prefix          string   `xml:",omitempty"`
	Marker          string   `xml:",omitempty"`
	MaxResults      int      `xml:",omitempty"`
	Blobs           struct{ Blob []listed }
	NextMarker      string
}

type listed struct {
	Name       string
	Properties struct {
		CreationTime  string `xml:"Creation-Time"`
		LastModified  string `xml:"Last-Modified"`
		Etag          string // without the quotes that it has in a header
		ContentLength int    `xml:"Content-Length"`
		ContentType   string `xml:"Content-Type"`
		ContentMD5    string `xml:"Content-MD5"`
		BlobType      string
		AccessTier    string
		LeaseStatus   string
		LeaseState    string
		Encrypted     bool `xml:"ServerEncrypted"`
	}
}

// markerForm is what a marker says before it is encoded: a page begins after the blob
// that it names, so that writes in between neither repeat nor hide others.
const markerForm = "after:"

func (a *Account) list(w http.ResponseWriter, r *http.Request, in string) error {
	q := r.URL.Query()
	if !validContainer(in) {
		return invalidName()
	}
	p := page{ServiceEndpoint: a.cfg.URL + "/", ContainerName: in, Prefix: q.Get("prefix"), Marker: q.Get("marker")}
	size := a.cfg.PageSize
	if q.Has("maxresults") {
		n, err := strconv.Atoi(q.Get("maxresults"))
		switch {
		case err != nil:
			return badQuery("maxresults")
		case n < 1:
			return &failure{http.StatusBadRequest, "OutOfRangeQueryParameterValue",
				"One of the query parameters specified in the request URI is outside the permissible range."}
		}
		p.MaxResults, size = n, min(n, size)
	}
	after, following, err := readMarker(p.Marker)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	c := a.containers[in]
	if c == nil {
		return noContainer()
	}
	if a.cfg.EmptyPages && !following {
		p.NextMarker = writeMarker("")
		return writePage(w, p)
	}
	from, found := slices.BinarySearch(c.names, after)
	if found && following {
		from++
	}
	for _, name := range c.names[from:] {
		if !strings.HasPrefix(name, p.Prefix) {
			continue
		}
		if len(p.Blobs.Blob) == size {
			p.NextMarker = writeMarker(p.Blobs.Blob[size-1].Name)
			break
		}
		p.Blobs.Blob = append(p.Blobs.Blob, c.blobs[name].listed())
	}
	return writePage(w, p)
}

func (b *Blob) listed() (l listed) {
	l.Name = b.Name
	l.Properties.CreationTime = b.Created.Format(http.TimeFormat)
	l.Properties.LastModified = b.Modified.Format(http.TimeFormat)
	l.Properties.Etag = strings.Trim(b.ETag, `"`)
	l.Properties.ContentLength = len(b.Value)
	l.Properties.ContentType = b.ContentType
	l.Properties.ContentMD5 = base64.StdEncoding.EncodeToString(b.md5())
	l.Properties.BlobType, l.Properties.AccessTier = "BlockBlob", "Hot"
	l.Properties.LeaseStatus, l.Properties.LeaseState = "unlocked", "available"
	l.Properties.Encrypted = true
	return l
}

func readMarker(marker string) (after string, following bool, err error) {
	if marker == "" {
		return "", false, nil
	}
	b, err := base64.RawURLEncoding.DecodeString(marker)
	after, ok := strings.CutPrefix(string(b), markerForm)
	if err != nil || !ok {
		return "", false, badQuery("marker")
	}
	return after, true, nil
}

func writeMarker(after string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(markerForm + after))
}

func writePage(w http.ResponseWriter, p page) error {
	b, err := xml.Marshal(p)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(http.StatusOK)
	_, _ = io.WriteString(w, byteOrderMark+xml.Header[:len(xml.Header)-1]+string(b))
	return nil
}
