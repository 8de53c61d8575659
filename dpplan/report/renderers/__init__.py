"""How a document looks: terminal, Markdown, CSV."""
