"""Reports: one HTML file that needs nothing else, and the same in Markdown, from what stands in a folder.

`contents` reads and checks a run's folder; `run_tables` and `run_pictures` make a `tables.Table` or `pictures.Picture`
of each thing that is told; `rendering` puts them into templates; `run_report` writes the files. Another report's page
extends `base.html.j2`, which has the style and what sorts tables, and imports the macros of `parts.html.j2`.
"""
