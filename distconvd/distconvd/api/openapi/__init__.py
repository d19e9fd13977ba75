"""Describe the API: each route's types, and the OpenAPI document made from them."""
