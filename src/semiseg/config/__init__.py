"""Config files to objects: schema, checks, building and run directories."""
