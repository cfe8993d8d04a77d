"""The long-lived process that owns a device, and how every other process asks it."""
