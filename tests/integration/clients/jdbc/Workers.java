import java.io.StringReader;
import java.io.StringWriter;
import java.sql.BatchUpdateException;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.ArrayList;
import java.util.List;
import java.util.TreeSet;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import org.postgresql.PGConnection;
import org.postgresql.PGNotification;

/** Twenty threads with a connection each: java Workers URL SCENARIO. Every answer is checked here. */
public final class Workers {
    private static final int WORKERS = 20;
    private static final int TURNS = 10;
    private static final String INSERT = "INSERT INTO rows_of_workers VALUES (?, ?, ?)";

    private interface Work {
        void run(Connection client, int number) throws Exception;
    }

    private static String url;

    public static void main(String[] words) throws Exception {
        url = words[0];
        switch (words[1]) {
            case "statements" -> crowd("prepareThreshold=1", Workers::statements);
            case "forgotten" -> crowd("prepareThreshold=1&preparedStatementCacheQueries=2", Workers::forgotten);
            case "binary" -> crowd("prepareThreshold=-1", Workers::statements);
            case "batches" -> crowd("prepareThreshold=1", Workers::batches);
            case "rewritten" -> crowd("prepareThreshold=1&reWriteBatchedInserts=true", Workers::batches);
            case "cursors" -> crowd("prepareThreshold=1", Workers::cursors);
            case "autosave" -> crowd("prepareThreshold=1&autosave=always", Workers::autosave);
            // As the driver comes: a statement is prepared from its fifth time on.
            case "autosaveLater" -> crowd("autosave=always", Workers::autosave);
            case "later" -> crowd("", Workers::statements);
            case "copy" -> crowd("", Workers::copy);
            case "settings" -> crowd("prepareThreshold=1", Workers::settings);
            case "levels" -> crowd("prepareThreshold=1", Workers::levels);
            case "listen" -> listen();
            default -> throw new IllegalArgumentException(words[1]);
        }
        System.out.println("all is well");
    }

    private static Connection connected(String options) throws SQLException {
        return DriverManager.getConnection(url + "&" + options);
    }

    private static void crowd(String options, Work work) throws Exception {
        ExecutorService threads = Executors.newFixedThreadPool(WORKERS);
        try {
            List<Callable<Void>> all = new ArrayList<>();
            for (int worker = 0; worker < WORKERS; worker++) {
                int number = worker;
                all.add(() -> {
                    try (Connection client = connected(options)) {
                        work.run(client, number);
                    }
                    return null;
                });
            }
            for (Future<Void> done : threads.invokeAll(all)) {
                done.get();
            }
        } finally {
            threads.shutdownNow();
        }
    }

    private static String said(int worker, int turn) {
        return "worker " + worker + " in turn " + turn + ": äöü € 🐘";
    }

    private static String zone(int worker) {
        return "Etc/GMT" + (worker < 14 ? "-" : "+") + Math.abs(worker - 14);
    }

    private static void same(Object wanted, Object found) {
        if (!wanted.equals(found)) {
            throw new AssertionError("wanted " + wanted + ", found " + found);
        }
    }

    private static Object one(PreparedStatement statement) throws SQLException {
        try (ResultSet rows = statement.executeQuery()) {
            rows.next();
            return rows.getObject(1);
        }
    }

    private static Object one(Connection client, String text) throws SQLException {
        try (PreparedStatement statement = client.prepareStatement(text)) {
            return one(statement);
        }
    }

    private static void fails(String state, Callable<?> call) throws Exception {
        try {
            call.call();
        } catch (SQLException error) {
            same(state, error.getSQLState());
            return;
        }
        throw new AssertionError("this should have failed with " + state);
    }

    /** Each driver calls its statements S_1, S_2 and so on; the text of "mine" differs with the worker. */
    private static void statements(Connection client, int number) throws Exception {
        try (PreparedStatement insertion = client.prepareStatement(INSERT);
                PreparedStatement mine = client.prepareStatement("SELECT " + number + " + ?::int");
                PreparedStatement failing = client.prepareStatement("SELECT " + number + " / ?::int");
                PreparedStatement own = client.prepareStatement(
                        "SELECT said FROM rows_of_workers WHERE worker = ? AND turn = ?")) {
            for (int turn = 0; turn < TURNS; turn++) {
                insertion.setInt(1, number);
                insertion.setInt(2, turn);
                insertion.setString(3, said(number, turn));
                same(1, insertion.executeUpdate());
                mine.setInt(1, turn);
                same(number + turn, one(mine));
                failing.setInt(1, 0);
                fails("22012", failing::executeQuery);
                own.setInt(1, number);
                own.setInt(2, turn);
                same(said(number, turn), one(own));
            }
        }
    }

    /** The driver closes the statements that it forgets, and prepares them again later. */
    private static void forgotten(Connection client, int number) throws Exception {
        for (int turn = 0; turn < 24; turn++) {
            try (PreparedStatement statement =
                    client.prepareStatement("SELECT " + number + " + ?::int AS c" + turn % 6)) {
                statement.setInt(1, turn);
                try (ResultSet rows = statement.executeQuery()) {
                    rows.next();
                    same(number + turn, rows.getInt("c" + turn % 6));
                }
            }
        }
    }

    private static void batches(Connection client, int number) throws Exception {
        client.setAutoCommit(false);
        try (PreparedStatement insertion = client.prepareStatement(INSERT)) {
            for (int part = 0; part < 3; part++) {
                for (int turn = part * 50; turn < part * 50 + 50; turn++) {
                    insertion.setInt(1, number);
                    insertion.setInt(2, turn);
                    insertion.setString(3, said(number, turn));
                    insertion.addBatch();
                }
                same(50, insertion.executeBatch().length);
                client.commit();
            }
            insertion.setInt(1, number);
            insertion.setInt(2, 0);
            insertion.setString(3, "there is one already");
            insertion.addBatch();
            try {
                insertion.executeBatch();
                throw new AssertionError("a second row with that key");
            } catch (BatchUpdateException error) {
                same("23505", error.getSQLState());
            }
            client.rollback();
        }
        same((long) 150, one(client, "SELECT count(*) FROM rows_of_workers WHERE worker = " + number));
        client.commit();
    }

    private static void cursors(Connection client, int number) throws Exception {
        client.setAutoCommit(false);
        try (PreparedStatement series =
                client.prepareStatement("SELECT ?::int + n FROM generate_series(1, 120) n")) {
            series.setFetchSize(50);
            for (int turn = 0; turn < 3; turn++) {
                series.setInt(1, number * 1000);
                try (ResultSet rows = series.executeQuery()) {
                    for (int n = 1; n <= 120; n++) {
                        same(true, rows.next());
                        same(number * 1000 + n, rows.getInt(1));
                        if (n == 60) { // another statement between two fetches
                            same(number, one(client, "SELECT " + number));
                        }
                    }
                    same(false, rows.next());
                }
                client.commit();
            }
        }
    }

    private static void autosave(Connection client, int number) throws Exception {
        client.setAutoCommit(false);
        for (int turn = 0; turn < TURNS; turn++) {
            try (PreparedStatement insertion = client.prepareStatement(INSERT)) {
                insertion.setInt(1, number);
                insertion.setInt(2, turn);
                insertion.setString(3, said(number, turn));
                same(1, insertion.executeUpdate());
                fails("23505", insertion::executeUpdate);
            }
            same((long) turn + 1, one(client, "SELECT count(*) FROM rows_of_workers WHERE worker = " + number));
            client.commit();
        }
    }

    private static void copy(Connection client, int number) throws Exception {
        StringBuilder lines = new StringBuilder();
        for (int turn = 0; turn < 500; turn++) {
            lines.append(number).append('\t').append(turn).append('\t').append(said(number, turn)).append('\n');
        }
        var manager = client.unwrap(PGConnection.class).getCopyAPI();
        same((long) 500, manager.copyIn("COPY rows_of_workers FROM STDIN", new StringReader(lines.toString())));
        StringWriter out = new StringWriter();
        String own = "SELECT * FROM rows_of_workers WHERE worker = " + number + " ORDER BY turn";
        manager.copyOut("COPY (" + own + ") TO STDOUT", out);
        same(lines.toString(), out.toString());
    }

    private static void settings(Connection client, int number) throws Exception {
        try (Statement statement = client.createStatement()) {
            statement.execute("SET TimeZone = '" + zone(number) + "'");
        }
        client.setClientInfo("ApplicationName", "worker-" + number);
        client.setSchema(number % 2 == 0 ? "pg_catalog" : "information_schema");
        for (int turn = 0; turn < 5; turn++) {
            same(zone(number), one(client, "SHOW TimeZone"));
            same("worker-" + number, one(client, "SELECT current_setting('application_name')"));
            same(number % 2 == 0 ? "pg_catalog" : "information_schema", client.getSchema());
        }
    }

    private static void levels(Connection client, int number) throws Exception {
        client.setAutoCommit(false);
        client.setReadOnly(number % 2 == 0);
        for (int turn = 0; turn < 5; turn++) {
            same(number % 2 == 0 ? "on" : "off", one(client, "SHOW transaction_read_only"));
            same(number, one(client, "SELECT " + number));
            client.commit();
        }
        client.setTransactionIsolation(Connection.TRANSACTION_SERIALIZABLE);
        same("serializable", one(client, "SHOW transaction_isolation"));
        client.commit();
        client.setTransactionIsolation(Connection.TRANSACTION_READ_COMMITTED);
        same("read committed", one(client, "SHOW transaction_isolation"));
        client.commit();
    }

    private static void listen() throws Exception {
        try (Connection client = connected("")) {
            try (Statement statement = client.createStatement()) {
                statement.execute("LISTEN news_for_jdbc");
            }
            crowd("prepareThreshold=1", (other, number) -> {
                try (PreparedStatement saying = other.prepareStatement("SELECT pg_notify('news_for_jdbc', ?)")) {
                    saying.setString(1, said(number, 0));
                    saying.execute();
                }
            });
            TreeSet<String> heard = new TreeSet<>();
            TreeSet<String> wanted = new TreeSet<>();
            for (int number = 0; number < WORKERS; number++) {
                wanted.add(said(number, 0));
            }
            long deadline = System.currentTimeMillis() + 20_000;
            while (heard.size() < WORKERS && System.currentTimeMillis() < deadline) {
                PGNotification[] some = client.unwrap(PGConnection.class).getNotifications(100);
                for (PGNotification note : some == null ? new PGNotification[0] : some) {
                    heard.add(note.getParameter());
                }
            }
            same(wanted, heard);
        }
    }
}
