"""How an analysis is shown: pages made of templates, curves, drawings and previews."""
