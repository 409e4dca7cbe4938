"""Reports: one HTML file that needs nothing else, and the same in Markdown, from what stands in a folder."""
