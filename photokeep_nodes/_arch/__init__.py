"""Network architectures that spandrel does not carry, written for the published weights."""
