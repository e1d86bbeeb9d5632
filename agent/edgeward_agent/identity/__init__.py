"""Who this device is: its key, its certificate, and how it gets and keeps them."""
