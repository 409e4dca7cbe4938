"""The formats that a run can be exported to, one a file; `base` says what a format is."""
