"""Who did what, when, from where; nothing here can be changed afterwards without being noticed."""
