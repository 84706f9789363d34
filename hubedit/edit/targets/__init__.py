"""What a site or a layer should write for each fact, by gradient descent."""
