// Package docs holds the pages for people. Its tests hold what they say about state
// against the code, so that no tag, message or name is written that the page does not
// explain.
//
// Nothing imports it, and it has no code of its own.
package docs
