"""What each answer says, one module a question."""
