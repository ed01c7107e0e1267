"""Search methods, one folder each."""
