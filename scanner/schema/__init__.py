"""What we say to programs: a JSON Schema for each version of the outcome, and TypeScript types made from it."""
