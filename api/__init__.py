"""HTTP in, jobs out: the service that the extension and the bulk list talk to."""
