"""What client and server both speak: tensors as bytes and as JSON, packets on a frames socket. It knows neither."""
