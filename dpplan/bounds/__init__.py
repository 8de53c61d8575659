"""What cannot be exceeded: strategies at one P:D, all P:D, and where what binds changes."""
