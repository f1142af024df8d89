"""The pages of the project as a book: Sphinx reads the same Markdown (`python -m docs.book`)."""
