"""What each answer shows as a picture, one module a question."""
