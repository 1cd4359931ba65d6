"""Services: independent FastAPI apps with loops; they never import each other."""
