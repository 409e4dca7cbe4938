"""Reports: one HTML file that needs nothing else, and the same in Markdown, from the files in a folder.

`contents` reads and checks a run's folder; `run_tables` and `run_pictures` make tables and pictures of it; `run_page`
says in which order they stand, with the text, as a `page.Page`; `html` and `markdown` render the page; `run_report`
writes the files. Sweeps have `sweep_contents`, `sweep_statistics` and `sweep_report`, long recordings `stream_page`;
`preview` makes a page of clips.
A new kind of part is a class in `page`, a macro in `templates/parts.html.j2`, and a case in `markdown`.
"""
