"""The only code of actord that touches the disk."""
