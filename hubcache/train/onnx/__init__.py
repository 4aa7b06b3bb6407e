"""Models as ONNX graphs: exported, checked, quantised; what trains them is elsewhere, and so is the cache."""
