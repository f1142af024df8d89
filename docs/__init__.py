"""The pages of the project, and the code that draws their figures (`python -m docs.figures`)."""
