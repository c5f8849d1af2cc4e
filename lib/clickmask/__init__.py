"""Make the mask of a structure from extreme points."""
