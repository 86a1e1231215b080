package rotation

import "strings"

// IsGUID reports whether a text has the form of a GUID, as Entra's and Azure DevOps'
// ids have it: 8-4-4-4-12 hexadecimal digits, without braces.
func IsGUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i := range len(s) {
		switch i {
		case 8, 13, 18, 23:
			if s[i] != '-' {
				return false
			}
		default:
			if !strings.Contains("0123456789abcdefABCDEF", s[i:i+1]) {
				return false
			}
		}
	}
	return true
}
