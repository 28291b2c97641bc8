"""The embedding space: CLIPs as folders of weights, pretrained or trained here, and what stands for a text."""
