"""Extreme points: the value type, requests parsed and checked, the store."""
