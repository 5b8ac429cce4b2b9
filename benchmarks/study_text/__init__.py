"""The study's text: documentation in fifteen languages out of Debian packages, as JSON lines."""
