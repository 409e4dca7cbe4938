"""The formats a run can be exported to: one file with one class each, found by the name of the file."""
