package ringmail.lab;

import org.apache.ignite.ssl.SslContextFactory;

/**
 * Ignite's own TLS, where the lab gives key stores for it: TLS 1.3 with AES-128-GCM, both sides with a certificate, which is
 * what sidecars do.
 *
 * Arguments: {@code keystore=} {@code truststore=} {@code password=}; without the first there is no TLS.
 */
final class Tls {
    private Tls() {
    }

    /** The factory for all of a node's and a client's connections, or null. */
    static SslContextFactory factory(String[] args) {
        String keys = Control.argument(args, "keystore", null);
        if (keys == null)
            return null;
        char[] password = Control.argument(args, "password", "").toCharArray();
        SslContextFactory factory = new SslContextFactory();
        factory.setKeyStoreType("PKCS12");
        factory.setKeyStoreFilePath(keys);
        factory.setKeyStorePassword(password);
        factory.setTrustStoreType("PKCS12");
        factory.setTrustStoreFilePath(Control.argument(args, "truststore", null));
        factory.setTrustStorePassword(password);
        factory.setProtocols("TLSv1.3");
        factory.setCipherSuites("TLS_AES_128_GCM_SHA256");
        return factory;
    }
}
