"""How weights leave the device between requests and come back."""
