"""Tests of deltaloom, in folders that mirror the code.

Read `fundamentals` first: its ten tests explain the product. Tests of whole processes on a server are in
`integration`.
"""
