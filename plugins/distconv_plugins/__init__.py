"""Bundle the plugins that come with distconvd, each in a small module or package."""
