import java.io.FileInputStream;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.InetAddress;
import java.security.KeyStore;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLParameters;
import javax.net.ssl.SSLServerSocket;
import javax.net.ssl.SSLSocket;
import javax.net.ssl.TrustManagerFactory;

/** The other end of a connection by the JDK's own TLS: {@code client <port> <store> <bytes>} or {@code server <store>}. */
public class Peer {
    private static final char[] PASSWORD = "password".toCharArray();

    public static void main(String[] arguments) throws Exception {
        if (arguments[0].equals("client")) {
            client(Integer.parseInt(arguments[1]), context(arguments[2]), Integer.parseInt(arguments[3]));
        } else {
            server(context(arguments[1]));
        }
    }

    /** Sends a pattern, and says whether the same came back, to the end. */
    private static void client(int port, SSLContext context, int bytes) throws Exception {
        try (SSLSocket socket = (SSLSocket) context.getSocketFactory().createSocket(InetAddress.getLoopbackAddress(), port)) {
            speak(socket);
            OutputStream out = socket.getOutputStream();
            Thread sender = new Thread(() -> {
                try {
                    byte[] chunk = new byte[8000];
                    for (int sent = 0; sent < bytes; sent += chunk.length) {
                        for (int i = 0; i < chunk.length; i++) chunk[i] = (byte) ((sent + i) % 251);
                        out.write(chunk, 0, Math.min(chunk.length, bytes - sent));
                    }
                    socket.shutdownOutput();
                } catch (Exception error) {
                    error.printStackTrace();
                }
            });
            sender.start();
            InputStream in = socket.getInputStream();
            byte[] buffer = new byte[65536];
            int received = 0;
            for (int read; (read = in.read(buffer)) >= 0; ) {
                for (int i = 0; i < read; i++, received++) {
                    if (buffer[i] != (byte) (received % 251)) throw new IllegalStateException("byte " + received);
                }
            }
            sender.join();
            System.out.println("received " + received + " " + socket.getSession().getCipherSuite());
        }
    }

    /** Echoes one connection to its end. */
    private static void server(SSLContext context) throws Exception {
        try (SSLServerSocket listener = (SSLServerSocket) context.getServerSocketFactory()
                .createServerSocket(0, 1, InetAddress.getLoopbackAddress())) {
            listener.setNeedClientAuth(true);
            System.out.println("port " + listener.getLocalPort());
            try (SSLSocket socket = (SSLSocket) listener.accept()) {
                speak(socket);
                InputStream in = socket.getInputStream();
                OutputStream out = socket.getOutputStream();
                byte[] buffer = new byte[65536];
                for (int read; (read = in.read(buffer)) >= 0; ) out.write(buffer, 0, read);
                socket.shutdownOutput();
                System.out.println("echoed");
            }
        }
    }

    private static void speak(SSLSocket socket) throws Exception {
        SSLParameters parameters = socket.getSSLParameters();
        parameters.setProtocols(new String[] {"TLSv1.3"});
        socket.setSSLParameters(parameters);
        socket.startHandshake();
    }

    /** Key and roots from one PKCS#12 file. Its names are no host names: nothing is asked of them. */
    private static SSLContext context(String file) throws Exception {
        KeyStore store = KeyStore.getInstance("PKCS12");
        try (InputStream in = new FileInputStream(file)) {
            store.load(in, PASSWORD);
        }
        KeyManagerFactory keys = KeyManagerFactory.getInstance("PKIX");
        keys.init(store, PASSWORD);
        KeyStore roots = KeyStore.getInstance("PKCS12");
        roots.load(null, null);
        roots.setCertificateEntry("root", store.getCertificateChain(store.aliases().nextElement())[1]);
        TrustManagerFactory trust = TrustManagerFactory.getInstance("PKIX");
        trust.init(roots);
        SSLContext context = SSLContext.getInstance("TLSv1.3");
        context.init(keys.getKeyManagers(), trust.getTrustManagers(), null);
        return context;
    }
}
