"""What jobs are made of: recipes, and the templates that models are asked with."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

from selftaught.client._async.transport import AsyncTransport
from selftaught.client.answers import url
from selftaught.contracts import BaseModelOut, Recipe, TemplateOut


class AsyncRecipes:
    """`client.recipes`"""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    def list(self) -> AsyncIterator[Recipe]:
        """All recipes that have a name, with all their settings."""
        return self._transport.pages(Recipe, "/v1/recipes", "name")

    async def get(self, name: str) -> Recipe:
        """A recipe's settings."""
        return await self._transport.get(Recipe, url("v1", "recipes", name))

    def base_models(self) -> AsyncIterator[BaseModelOut]:
        """All models that a recipe's `base_model` may name."""
        return self._transport.pages(BaseModelOut, "/v1/base-models", "name")


class AsyncTemplates:
    """`client.templates`"""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def create(self, template: Mapping[str, Any]) -> TemplateOut:
        """Upload a template: `name`, `kind`, `user`, and what else its kind needs.

        The same content again changes nothing; a name never changes its content.
        """
        return await self._transport.post(TemplateOut, "/v1/templates", template)

    async def get(self, name: str) -> TemplateOut:
        """A template and its content."""
        return await self._transport.get(TemplateOut, url("v1", "templates", name))

    def list(
        self, *, after: str | None = None, limit: int | None = None
    ) -> AsyncIterator[TemplateOut]:
        """Templates by name, shipped ones and uploaded ones."""
        return self._transport.pages(TemplateOut, "/v1/templates", "name", after, limit)
