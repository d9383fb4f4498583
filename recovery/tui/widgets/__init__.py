"""Widgets of the recovery console that draw only characters the console font has."""
