"""The proposer that asks a language model: the Messages API of the anthropic SDK, with tools.

Nothing here is imported before it is asked for: the SDK is an extra.
"""
