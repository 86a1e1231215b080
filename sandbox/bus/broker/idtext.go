package broker

import (
	"encoding/hex"
	"fmt"
)

// idText is a message id or correlation id as text.
func idText(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	case []byte:
		return hex.EncodeToString(v)
	}
	return fmt.Sprint(v)
}
