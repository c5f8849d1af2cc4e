"""The studies folder as MONAI Label sees it, made safe."""
