"""The base of all other packages: errors, whole files, the base of configs, runtime, progress.

Folders: `text`; `documents` (JSON and YAML); `records` (what packages hand to each other);
`processes`.
"""
