"""Segment all studies of an archive in advance, as proposals that people accept or correct."""
