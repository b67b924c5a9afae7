// java JavaMail.java PORT FROM TO BODY-FILE
import java.nio.file.*;
import java.util.*;
import javax.mail.*;
import javax.mail.internet.*;

public class JavaMail {
    public static void main(String[] given) throws Exception {
        Properties properties = new Properties();
        properties.put("mail.smtp.host", "127.0.0.1");
        properties.put("mail.smtp.port", given[0]);
        MimeMessage message = new MimeMessage(Session.getInstance(properties));
        message.setFrom(new InternetAddress(given[1]));
        message.setRecipient(Message.RecipientType.TO, new InternetAddress(given[2]));
        message.setSubject("From Java", "UTF-8");
        message.setSentDate(new Date());
        message.setText(new String(Files.readAllBytes(Paths.get(given[3])), "UTF-8"), "UTF-8");
        Transport.send(message);
    }
}
