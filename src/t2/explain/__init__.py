"""Verdicts into sentences, trees and tables."""
