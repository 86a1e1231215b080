// Package manifest reads pats.yaml, the file in which teams declare the PATs that
// they own. It fills in the defaults, checks every rule, and answers with all
// problems at once, each with its place in the file and with what to do.
//
// It turns text into rotation.Spec and knows nothing else: no vault, no Azure
// DevOps, no environment. It holds no secret, and says so to whoever writes one
// into the file.
package manifest
