"""What the steps look at: features of a cache, the heads that read them, where in an image they come from."""
