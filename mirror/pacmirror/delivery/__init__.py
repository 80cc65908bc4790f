"""Other ways to deliver releases than our own HTTP: each one package, which needs an extra and is imported by nobody below."""
