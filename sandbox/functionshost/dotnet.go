package functionshost

import (
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// dotNetNumber is a JSON number as .NET prints it after reading: an integer as
// it stands, a double in its shortest form, with E notation from 1E+15 and below
// 1E-05.
func dotNetNumber(text string) string {
	if !strings.ContainsAny(text, ".eE") {
		if text == "-0" {
			return "0"
		}
		return text
	}
	v, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return text
	}
	if v == 0 {
		if math.Signbit(v) {
			return "-0"
		}
		return "0"
	}
	if a := math.Abs(v); a >= 1e15 || a < 1e-4 {
		return strconv.FormatFloat(v, 'E', -1, 64)
	}
	return strconv.FormatFloat(v, 'f', -1, 64)
}

var isoDate = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(Z|[+-]\d\d(?::?\d\d)?)?$`)

// dotNetDate is a JSON string as .NET prints it after reading: Json.NET takes
// ISO dates for dates, which come out in the invariant culture's format, without
// fraction and zone. The machine's zone is UTC.
func dotNetDate(text string) string {
	m := isoDate.FindStringSubmatch(text)
	if m == nil {
		return text
	}
	zone := m[1]
	layout := "2006-01-02T15:04:05.999999999"
	switch {
	case zone == "Z":
		layout += "Z07:00"
	case len(zone) == 6:
		layout += "-07:00"
	case len(zone) == 5:
		layout += "-0700"
	case len(zone) == 3:
		layout += "-07"
	}
	t, err := time.Parse(layout, text)
	if err != nil {
		return text
	}
	return t.UTC().Format("01/02/2006 15:04:05")
}
