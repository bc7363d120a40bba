"""Models as programs of other runtimes: ONNX, OpenVINO, and a page for a browser."""
