"""SQLAlchemy with its own pool on: the ORM and Core over psycopg, psycopg2, pg8000 and asyncpg."""

from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from typing import Any

import pytest
from sqlalchemy import Engine, ForeignKey, Integer, create_engine, func, insert, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship, selectinload
from sqlalchemy.pool import AsyncAdaptedQueuePool, QueuePool

from integration.clients.crowd import WORKERS, in_tasks, in_threads, said
from servers import Penstock

pytestmark = pytest.mark.integration

TURNS = 5


class Base(DeclarativeBase):
    pass


class Owner(Base):
    __tablename__ = "owners_of_sqlalchemy"
    id: Mapped[int] = mapped_column(primary_key=True)
    worker: Mapped[int]
    made: Mapped[datetime] = mapped_column(server_default=func.now())
    things: Mapped[list["Thing"]] = relationship(back_populates="owner", order_by="Thing.turn")


class Thing(Base):
    __tablename__ = "things_of_sqlalchemy"
    id: Mapped[int] = mapped_column(primary_key=True)
    owner_id: Mapped[int] = mapped_column(ForeignKey(Owner.id))
    turn: Mapped[int]
    said: Mapped[str]
    state: Mapped[str] = mapped_column(server_default=text("'as the server says'"))
    owner: Mapped[Owner] = relationship(back_populates="things")


def url(penstock: Penstock, driver: str) -> str:
    return penstock.dsn().replace("postgresql://", f"postgresql+{driver}://")


@pytest.fixture(params=["psycopg", "psycopg2", "pg8000"])
def engine(request: pytest.FixtureRequest, penstock: Penstock) -> Iterator[Engine]:
    # Fewer connections than workers: each of them serves several workers in turn.
    engine = create_engine(url(penstock, request.param), pool_size=6, max_overflow=4, pool_timeout=60)
    assert isinstance(engine.pool, QueuePool)
    Base.metadata.create_all(engine)
    yield engine
    Base.metadata.drop_all(engine)
    engine.dispose()


@pytest.fixture(params=["asyncpg", "psycopg"])
async def async_engine(request: pytest.FixtureRequest, penstock: Penstock) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(url(penstock, request.param), pool_size=6, max_overflow=4, pool_timeout=60)
    assert isinstance(engine.pool, AsyncAdaptedQueuePool)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield engine
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)
    await engine.dispose()


def own_things(number: int) -> Any:
    return select(Owner).where(Owner.worker == number).options(selectinload(Owner.things))


def check(owner: Owner, number: int) -> None:
    assert owner.worker == number
    assert owner.made is not None
    assert [(thing.turn, thing.said) for thing in owner.things] == [
        (turn, said(number, turn)) for turn in range(TURNS)
    ]
    assert {thing.state for thing in owner.things} == {"as the server says"}


def test_sessions_of_the_orm(engine: Engine) -> None:
    def work(number: int) -> None:
        with Session(engine) as session:
            owner = Owner(worker=number)
            session.add(owner)
            session.commit()
            for turn in range(TURNS):
                owner.things.append(Thing(turn=turn, said="not yet"))
                session.flush()
                owner.things[-1].said = said(number, turn)
                session.commit()
            with pytest.raises(IntegrityError), session.begin_nested():
                session.execute(insert(Owner).values(id=owner.id, worker=number))
            session.commit()
        with Session(engine) as session:
            check(session.scalars(own_things(number)).one(), number)

    in_threads(work)
    with Session(engine) as session:
        assert session.scalar(select(func.count()).select_from(Thing)) == WORKERS * TURNS


def test_connections_of_the_core(engine: Engine) -> None:
    def work(number: int) -> None:
        with engine.begin() as connection:
            owners = connection.execute(
                Owner.__table__.insert().returning(Owner.id), [{"worker": number} for _ in range(20)]
            )
            assert len(set(owners.scalars())) == 20
        streaming = engine.connect().execution_options(stream_results=True, max_row_buffer=50)
        with streaming as connection:
            series = text("SELECT CAST(:base AS int) + n FROM generate_series(1, 300) n")
            found = connection.execute(series, {"base": number * 1000}).scalars()
            assert list(found) == [number * 1000 + n for n in range(1, 301)]
        for level in ("REPEATABLE READ", "SERIALIZABLE", "AUTOCOMMIT"):
            with engine.connect().execution_options(isolation_level=level) as connection:
                wanted = level.lower() if level != "AUTOCOMMIT" else "read committed"
                assert connection.scalar(text("SHOW transaction_isolation")) == wanted
                assert connection.scalar(select(text(f"{number}"))) == number

    in_threads(work)


async def test_sessions_of_the_orm_in_tasks(async_engine: AsyncEngine) -> None:
    async def work(number: int) -> None:
        async with AsyncSession(async_engine, expire_on_commit=False) as session:
            session.add(Owner(worker=number))
            await session.commit()
            for turn in range(TURNS):
                owner = (await session.scalars(own_things(number))).one()
                owner.things.append(Thing(turn=turn, said=said(number, turn)))
                await session.commit()
        async with AsyncSession(async_engine) as session:
            check((await session.scalars(own_things(number))).one(), number)

    await in_tasks(work)


async def test_streams_and_errors_in_tasks(async_engine: AsyncEngine) -> None:
    async def work(number: int) -> None:
        async with async_engine.connect() as connection:
            series = select(func.generate_series(1, 300).label("n")).add_columns(text(f"{number} AS mine"))
            streamed = await connection.stream(series, execution_options={"yield_per": 50})
            assert [tuple(row) async for row in streamed] == [(n, number) for n in range(1, 301)]
        for turn in range(3):
            async with async_engine.connect() as connection:
                with pytest.raises(IntegrityError):
                    await connection.execute(
                        Thing.__table__.insert(), {"owner_id": -1, "turn": turn, "said": said(number, turn)}
                    )
                await connection.rollback()
                mine = select(func.cast(number + turn, Integer))
                assert await connection.scalar(mine) == number + turn

    await in_tasks(work)
